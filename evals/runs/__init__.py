"""One run: asking, programs, judging, grading, summary."""
