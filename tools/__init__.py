"""What maintainers run: nothing here is installed, and `worker` never imports it."""
