"""What arms are compared by: tables and pictures of a frame of loops."""
