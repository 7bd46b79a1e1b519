"""threefactors: which minima does SGD find?"""
