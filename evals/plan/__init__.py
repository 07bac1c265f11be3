"""From settings to what will be asked, by whom it is judged, and what that costs."""
