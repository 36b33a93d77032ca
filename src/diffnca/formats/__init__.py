"""Write finished regions into image files, and read these files."""
