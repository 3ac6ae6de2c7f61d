"""Who points to what: roots, references, reachability, holders."""
