"""What runs on the cluster, and how it is submitted."""
