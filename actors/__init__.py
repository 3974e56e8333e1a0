"""Work in the background: the objects of Ray actors, one file each."""
