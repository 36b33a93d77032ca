"""Images as somebody asks for them: requests, files, films."""
