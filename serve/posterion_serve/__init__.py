"""Ray Serve deployments and protocols."""
