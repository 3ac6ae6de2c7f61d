"""What is known of Windows itself: structure layouts by build, processes, modules."""
