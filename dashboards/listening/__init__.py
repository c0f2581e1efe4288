"""The web page of a listening study."""
