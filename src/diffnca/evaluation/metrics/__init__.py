"""Numbers that compare sets of images: in the features of a fixed network, and as textures."""
