"""Events in words: the sentences that terminal, viewer and report share."""
