"""How errors of decoders become complaints."""

from __future__ import annotations

import pytest

from diffnca.data.refusals import UnusableImageError, refusing


def test_a_complaint_that_is_a_key_alone_says_that_a_key_is_missing() -> None:
    with pytest.raises(UnusableImageError, match=r"unreadable: KeyError\('SizeY'\)"), refusing("unreadable"):
        raise KeyError("SizeY")
