"""How far can a model be pruned on one's own images: settings tried, one chosen, and what it promises."""
