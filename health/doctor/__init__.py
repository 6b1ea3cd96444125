"""The doctor: says what is wrong with somebody's own SSE service in Kubernetes, whatever it is written in.

    kubectl get deploy,svc,ingress,pdb,hpa -o yaml | python -m health.doctor

Theory of operation, and which way imports run: ``load`` reads YAML into objects whose every field knows its line
(``tree``, ``place``); ``model`` puts workloads, servers, routes and Services together (``workloads``, ``servers``,
``traffic``, ``images``, ``shell``); ``rules`` is a table of functions over that model; ``repair`` makes their changes
in the manifest's text; ``render`` shows them. ``live`` and ``symptoms`` look at a running service and at what kubectl
says, and give findings of the same form. Nothing here imports the rest of the package, nor Flask or gevent: it starts
in 0.2 s.
"""
