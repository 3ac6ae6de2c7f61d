"""What each answer says, in words and rows: one file an answer, which makes its document and its JSON."""
