"""The rows of the volumes benchmark that need real storage."""
