"""Files of ours and of others that hold answers: snapshot files and UMDH logs."""
