"""Names of Serve applications and deployments."""

GATEWAY = "gateway"
MODEL_DEPLOYMENT = "Model"


def application_name(task: str) -> str:
    """The Serve application of a task's model."""
    return f"task-{task}"
