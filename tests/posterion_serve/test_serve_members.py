import posterion_serve


def test_exported_members_are_sorted_and_exist():
    assert posterion_serve.__all__ == sorted(posterion_serve.__all__)
    for name in posterion_serve.__all__:
        assert hasattr(posterion_serve, name)
