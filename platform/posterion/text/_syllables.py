"""Syllables of English words: rules over the spelling, and a list of words that break them."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Words that the rules miss, by their number of syllables. Only words that ordinary prose
# repeats, since a rare word moves no mean.
_EXCEPTIONS = {
    word: count
    for count, words in {
        1: "aisle eyed isle queue",
        2: "argue being biscuit business carriage cashier chaos colonel cruel doer duel duo "
        "evening every fluid forehead foremost frontier fuel fuels hatred household hundred ion "
        "ions kindred lion lions louis marriage maybe messrs mister mr mrs naked people peoples "
        "ragged rugged ruin ruined ruins sacred soldier soldiers soviet statesman suet therefore "
        "whereas wicked crooked william",
        3: "anyone area areas argued behavior behaviour everyday everyone everything everywhere "
        "gaseous hyena hyenas idea ideas museum museums oasis parliament ratio reunite theatre "
        "theatres",
        4: "apostrophe catastrophe etc european everybody oceanic",
    }.items()
    for word in words.split()
}

# Letters without a sound of their own, taken out before vowels are counted.
_SILENT = re.compile(
    # The final e, es, ed, but not those of table, centre, boxes, wanted ...
    r"(?<=[^aeiouyl])(?<![ct]r)e$|(?<=[aeiouyrwl]l)e$"
    r"|(?<=[^aeiouylszxcg])(?<![ct]r)(?<![cs]h)es$|(?<=[aeiouyrwl]l)es$"
    r"|(?<=[^aeiouyltd])ed$|(?<=[aeiouyrwl]l)ed$"
    r"|(?<=g)ue(?=[sd]?$)"  # league
    # ... and the same e before a suffix: lovely, careful, arrangement.
    r"|(?<=[aeiouy][bcdfgkmnprstvz])e(?=(?:ly|less|lessly|ful|fully|ments?|ness|some)$)"
    r"|(?<=[aeiouy][^aeiouy][^aeiouylr])e(?=(?:ly|less|ful|ments?|ness)$)"
    r"|(?<=ic)a(?=lly$)"  # basically
)

# The silent e at the end of a compound's first part: something, homework, likewise.
_COMPOUND = re.compile(
    r"^(bas|befor|els|fac|fin|for|hom|hors|hous|lif|lik|lim|liv|lov|mak|mor|nam|nin|plac|saf|sid|"
    r"snak|som|spac|ther|tim|wav|wher|whit|wid)e(?=[bcdfghjklmnopstwz])"
    r"(?!(?:[dlmnrst]|st|ry|red|ring|rs|ly|ty[a-z]+|less|ness|ss|tic|sis|lter|cast)$|r[aeiou]|st)"
)

# Neighbouring vowels that are spoken apart, each match one more syllable.
_APART = re.compile(
    r"(?<=[^aeocst])i(?=a)(?!iag)(?<!li)"  # giant, not special, carriage, familiar
    r"|(?<=l)i(?=anc|abl)|(?<=qw)i(?=et)"  # reliance, quiet
    r"|(?<=[ct])i(?=at)|i(?=et(?:y|ies))|(?<!n)(?<=sc)i(?=en)"  # associate, society, science
    r"|(?<=[^aeouchgslntx])i(?=o)|(?<=[nrl])i(?=ou)"  # period, not nation, million
    r"|(?<=[^aeoug])i(?=u)"  # radium
    r"|(?<=[^aeouctsgxhn])i(?=en[tc])|(?<=al)i(?=en)"  # orient, alien
    r"|(?:(?<=[aeiouy]\w)|(?<=[aeiouy]\w\w))i(?=e(?:r|rs|st)$)|(?<=d)i(?=et)"  # easier, diet
    r"|(?<=[aeou])(?=ing)|(?<=[^aeiou])y(?=ing)"  # being, flying
    r"|(?<=[^aeiou])e(?=o(?!u)|um|us)(?<!pe)(?<!^ge)|(?<=g)e(?=o[gml])"  # video, geology
    r"|(?<=cr)e(?=at(?!ur))|(?<=^r)e(?=act|ali|app)|(?<=ucl)e(?=[ai])|(?<=lin)e(?=ar)"
    r"|(?<=^th)e(?=at)|(?<=[nrtd])e(?=a$)(?<!te)"
    r"|(?<=[^gq])u(?=a[lrt]|ou)|(?<=l)u(?=en)|(?<=[flr])u(?=i[dt])(?<!fru)"  # usual, fluent
    r"|(?<=p)o(?=e[mt])|(?<=r)o(?=ic)"  # poet, heroic
    r"|(?<=s)m(?=s?$)|(?<=th)m(?=s?$)"  # prism, rhythm
)

_VOWELS = re.compile(r"[aeiouy]+")
_HYPHEN = re.compile(r"[-\u2010\u2011.]")
_HISSING = re.compile(r"(?:[sxz]|[cs]h|[cg]e|[sz]e)$")
_PRONOUNS = frozenset(["i", "you", "he", "she", "we", "they", "who", "how", "there"])


@lru_cache(maxsize=1 << 16)
def count_syllables(word: str) -> int:
    """Syllables of one word as :func:`split_words` gives it; at least 1 if it has a letter.

    Rules over the spelling: a syllable for each group of vowel letters, less silent ones
    (``make``, ``lovely``), more where neighbours are spoken apart (``giant``, ``being``),
    and a short list of frequent words that break the rules. Parts of a hyphenated word are counted
    by themselves. Each digit is one syllable, each letter of an abbreviation without vowels
    (``DVD``) or with stops (``U.S.``), each Chinese character and each kana.
    """
    return sum(_part(part) for part in _HYPHEN.split(word) if part)


def _part(part: str) -> int:
    stem, _, ending = part.replace("\u2019", "'").partition("'")
    letters = _plain(stem)
    if not letters:
        return max(1, sum(character.isalnum() for character in part))
    if stem.isupper() and len(letters) > 1 and _VOWELS.search(letters) is None:
        return len(letters)
    return _of_letters(letters) + _of_ending(letters, ending.lower())


def _plain(stem: str) -> str:
    """Its letters from a to z; the accent that makes a final e spoken (café) makes it an i."""
    decomposed = unicodedata.normalize("NFD", stem.lower())
    spoken = re.sub(r"e[\u0300-\u036f]+(?=s?$)", "i", decomposed)
    return "".join(letter for letter in spoken if "a" <= letter <= "z")


def _of_letters(letters: str) -> int:
    if letters in _EXCEPTIONS:
        return _EXCEPTIONS[letters]
    spoken = letters.replace("qu", "qw")
    # A y before a vowel is a consonant at the start (yes) and after a vowel (player).
    spoken = re.sub(r"(?:^|(?<=[aeou]))y(?=[aeiou])", "j", spoken)
    spoken = _SILENT.sub("", _COMPOUND.sub(r"\1", spoken))
    return max(1, len(_VOWELS.findall(spoken)) + len(_APART.findall(spoken)))


def _of_ending(letters: str, ending: str) -> int:
    """What follows an apostrophe: 's, n't, 'll ..., or a word of its own (o'clock)."""
    if ending in ("", "s", "m", "re"):
        return int(ending == "s" and _HISSING.search(letters) is not None)
    if ending in ("ll", "ve", "d"):
        return int(letters not in _PRONOUNS)
    if ending == "t":
        return int(re.search(r"[^aeiouyrwl]n$", letters) is not None)
    return _of_letters(plain) if (plain := _plain(ending)) else 0
