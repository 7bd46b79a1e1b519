"""Publishing: from source chapters to a site, nothing of it typed by hand.

``chapters`` what a chapter is and its fingerprint · ``execute`` run it through papermill, watched by
``watch`` · ``gate`` is the notebook fit to publish? · ``ledger`` the verdicts in all of them · ``site``
jupyter-book around them · ``build`` the whole way, as ``threefactors book`` goes it. ``recorder`` makes records of
other sizes · ``recording`` keeps them · ``definition`` tells when they are stale · ``recorded`` shows them ·
``measured`` benchmarks on record. ``figure_data`` the numbers behind every figure · ``built`` a site read back ·
``drift`` and ``compare`` two of them side by side.
"""
