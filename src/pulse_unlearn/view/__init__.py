"""A local page over many runs: their state, results, and every stored answer; changes nothing."""




