"""A bundle as a service: questions and answers, the HTTP around them, and a page."""
