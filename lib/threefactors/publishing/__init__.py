"""Publishing: from source chapters to a site, nothing of it typed by hand.

The way of a chapter: ``chapters`` what it is and its fingerprint · ``execute`` run it through papermill, watched by
``watch`` · ``gate`` is the notebook fit to publish? · ``fit`` are all of them, together? · ``site`` jupyter-book around
them · ``build`` the whole way, as ``threefactors book`` goes it.

What pages show: ``ledger`` all verdicts · ``conclusions`` what they come to · ``status`` what each chapter took ·
``costs`` and ``ways`` how to make it all again · ``measured`` benchmarks on record. ``recorder`` makes records of other
sizes · ``recording`` keeps them · ``definition`` tells when they are stale · ``recorded`` shows them.

What Sphinx is taught: ``extension`` a line under each title and figure (``furniture``, from ``origins``), and that no
unfit notebook passes · ``again`` a figure of another page. Then ``mending`` of the finished pages, and ``links``.

What else readers get: ``figure_data`` the numbers behind every figure · ``colab`` chapters as plain notebooks
(``plain``, ``crossrefs``, ``opening``), for the ``repository`` that they belong to · ``pdf`` the whole book, laid out
by ``paper``, printed by ``browser`` · ``compare`` two sites side by side (``built``, ``drift``).
"""
