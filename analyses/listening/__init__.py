"""What listeners preferred and rated, with intervals over listeners."""
