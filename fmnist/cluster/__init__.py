"""What runs on Ray. It is imported where it is used, never before: without a cluster there is no Ray."""
