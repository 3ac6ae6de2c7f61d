"""What each answer says, in words and rows."""
