"""The doctor finds what is wrong with anybody's SSE service in Kubernetes, whatever its language.

    kubectl get deploy,svc,ingress,pdb,hpa -o yaml | python -m health.doctor

Theory of operation, in the order of imports: ``load`` reads YAML into objects whose every field knows its line
(``tree``, ``place``). ``model`` connects workloads, servers, routes and Services (``workloads``, ``servers``,
``traffic``, ``images``, ``shell``). ``rules`` is a table of functions over that model. ``repair`` makes their changes
in the manifest's text; ``render`` shows findings. ``live`` examines a running service, ``symptoms`` kubectl's output;
both give findings of the same form. Nothing here imports the rest of the package, Flask or gevent: it starts in 0.2 s.
"""
