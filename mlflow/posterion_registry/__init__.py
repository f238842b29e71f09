"""MLflow tracking and registry for Posterion."""
