"""The services that make images and videos: base.py says what one must do, then one folder for each."""
