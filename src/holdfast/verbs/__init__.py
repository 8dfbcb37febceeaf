"""What Holdfast does: each verb over the ports, knowing no adapter by name."""
