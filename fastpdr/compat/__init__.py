"""Other packages' names for what fastpdr does: scripts written for them run after a change of the import."""
