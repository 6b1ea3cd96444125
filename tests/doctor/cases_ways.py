"""HW4xx to HW6xx: scaling, and everything between a client and a pod."""

from __future__ import annotations

from typing import Any

from tests.doctor.cases import (
    BEATS,
    UVICORN,
    VOLUME,
    finds,
    probe,
    silent,
    web,
)
from tests.doctor.manifests import config, container, deployment, ingress, service, thing

# ── HW40x: scaling
finds("HW401", "Recreate", deployment(spec={"strategy": {"type": "Recreate"}}), "strategy.type", "risks")
finds("HW401", "all unavailable", deployment(spec={"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}}), "maxUnavailable", "risks")
silent("HW401", "one pod", deployment(spec={"strategy": {"type": "Recreate"}, "replicas": 1}))
silent("HW401", "a quarter", deployment(spec={"strategy": {"rollingUpdate": {"maxUnavailable": "25%"}}}))

finds("HW402", "a long start", web(startupProbe=probe(failureThreshold=100)), "progressDeadlineSeconds", "note")
silent("HW402", "a longer deadline", deployment(container(startupProbe=probe(failureThreshold=100)), spec={"progressDeadlineSeconds": 1200}))

GUARDED = {"selector": {"matchLabels": {"app": "shop"}}}
finds("HW403", "none may go", [deployment(), thing("PodDisruptionBudget", {**GUARDED, "maxUnavailable": 0})], "maxUnavailable", "breaks")
finds("HW403", "all must stay", [deployment(), thing("PodDisruptionBudget", {**GUARDED, "minAvailable": 2})], "minAvailable", "breaks")
finds("HW403", "a hundred per cent", [deployment(), thing("PodDisruptionBudget", {**GUARDED, "minAvailable": "100%"})], "minAvailable", "breaks")
silent("HW403", "one may go", [deployment(), thing("PodDisruptionBudget", {**GUARDED, "maxUnavailable": 1})])
silent("HW403", "half", [deployment(), thing("PodDisruptionBudget", {**GUARDED, "minAvailable": "50%"})])
silent("HW403", "another's", [deployment(), thing("PodDisruptionBudget", {"selector": {"matchLabels": {"app": "db"}}, "maxUnavailable": 0})])

SCALED = {"scaleTargetRef": {"kind": "Deployment", "name": "shop"}, "minReplicas": 2, "maxReplicas": 10}
SLOWLY = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}]}}
BY_STREAMS = [{"type": "Pods", "pods": {"metric": {"name": "streams"}}}]
BY_CPU = [{"type": "Resource", "resource": {"name": "cpu"}}]
finds("HW404", "the default", [deployment(), thing("HorizontalPodAutoscaler", {**SCALED, "metrics": BY_STREAMS})], "behavior.scaleDown", "risks")
silent("HW404", "one at a time", [deployment(), thing("HorizontalPodAutoscaler", {**SCALED, "behavior": SLOWLY})])
silent("HW404", "never down", [deployment(), thing("HorizontalPodAutoscaler", {**SCALED, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}})])
finds("HW405", "CPU only", [deployment(), thing("HorizontalPodAutoscaler", {**SCALED, "metrics": BY_CPU})], "spec.metrics", "note")
silent("HW405", "streams, too", [deployment(), thing("HorizontalPodAutoscaler", {**SCALED, "metrics": BY_CPU + BY_STREAMS})])
KEDA = {"scaleTargetRef": {"name": "shop"}, "triggers": []}
finds("HW406", "the default", [deployment(), thing("ScaledObject", KEDA)], "minReplicaCount", "risks")
silent("HW406", "one stays", [deployment(), thing("ScaledObject", {**KEDA, "minReplicaCount": 1})])
VPA = {"targetRef": {"kind": "Deployment", "name": "shop"}}
finds("HW407", "the default", [deployment(), thing("VerticalPodAutoscaler", VPA)], "updateMode", "risks")
silent("HW407", "advice only", [deployment(), thing("VerticalPodAutoscaler", {**VPA, "updatePolicy": {"updateMode": "Off"}})])


# ── HW41x: Ingress
def behind(*routes: Any, **fields: Any) -> list[Any]:
    return [web(**fields), service(), *routes]


READ = "metadata.annotations['nginx.ingress.kubernetes.io/proxy-read-timeout']"
finds("HW411", "ingress-nginx' default", behind(ingress("nginx")), READ, "risks")
finds("HW411", "a unit is ignored", behind(ingress("nginx", proxy_read_timeout="3600s")), READ, "risks")
finds("HW411", "below the heartbeat", behind(ingress("nginx", proxy_read_timeout="10"), env=BEATS), READ, "breaks")
finds("HW411", "OpenShift", behind(thing("Route", {"to": {"name": "shop"}})), "['haproxy.router.openshift.io/timeout']", "risks")
finds("HW411", "HAProxy", behind(ingress("haproxy", timeout_server="10s")), "['haproxy.org/timeout-server']", "risks")
finds("HW411", "F5", behind(ingress("f5")), "['nginx.org/proxy-read-timeout']", "risks")
silent("HW411", "an hour", behind(ingress("nginx", proxy_read_timeout="3600")))
silent("HW411", "F5 takes a unit", behind(ingress("f5", proxy_read_timeout="3600s")))
silent("HW411", "a heartbeat", behind(ingress("nginx"), env=BEATS))
silent("HW411", "not the stream's path", behind(ingress("nginx", ["/api"]), ingress("nginx", ["/events"], proxy_read_timeout="3600")), "/events/news")
silent("HW411", "a snippet", behind(ingress("nginx", configuration_snippet="proxy_read_timeout 1h;")))
silent("HW411", "a class that is not known", behind({**ingress(None), "metadata": {"name": "shop"}}))

BUFFER = "['nginx.ingress.kubernetes.io/proxy-buffering']"
finds("HW412", "switched on", behind(ingress("nginx", proxy_buffering="on")), BUFFER, "breaks")
finds("HW412", "F5's default", behind(ingress("f5")), "['nginx.org/proxy-buffering']", "breaks")
finds("HW412", "Kong's default", behind(ingress("kong")), "['konghq.com/response-buffering']", "breaks")
silent("HW412", "ingress-nginx' default", behind(ingress("nginx")))
silent("HW412", "F5, switched off", behind(ingress("f5", proxy_buffering="false")))

finds("HW413", "a header for the client", behind(ingress("nginx", configuration_snippet='more_set_headers "X-Accel-Buffering: no";')), "-snippet']", "note")
finds("HW413", "not an ALB's", behind(ingress("alb", connection_idle_timeout="300")), "connection-idle-timeout']", "risks")
finds("HW413", "another controller's", behind({**ingress("nginx", proxy_read_timeout="3600"), "spec": ingress("haproxy")["spec"]}), READ, "risks")
silent("HW413", "attributes", behind(ingress("alb", load_balancer_attributes="idle_timeout.timeout_seconds=300")))
silent("HW413", "its own", behind(ingress("nginx", proxy_read_timeout="3600")))

finds("HW414", "five", behind(ingress("nginx", limit_connections="5")), "limit-connections']", "risks")
silent("HW414", "a thousand", behind(ingress("nginx", limit_connections="1000")))
finds("HW415", "1.0", behind(ingress("nginx", proxy_http_version="1.0")), "proxy-http-version']", "risks")
silent("HW415", "the default", behind(ingress("nginx")))
finds("HW416", "the default", config("ingress-nginx-controller", proxy_read_timeout="3600"), "data.worker-shutdown-timeout", "risks")
finds("HW416", "buffering for all", config("ingress-nginx-controller", proxy_buffering="on"), "data.proxy-buffering", "breaks")
finds("HW416", "a unit is ignored", config("ingress-nginx-controller", proxy_read_timeout="1h"), "data.proxy-read-timeout", "risks")
silent("HW416", "an hour", config("ingress-nginx-controller", worker_shutdown_timeout="3600s"))
silent("HW416", "another ConfigMap", config("shop", worker_shutdown_timeout="10s"))

finds("HW417", "an Ingress", behind(ingress("contour")), "['projectcontour.io/response-timeout']", "breaks")
finds("HW417", "an HTTPProxy", behind(thing("HTTPProxy", {"routes": [{"services": [{"name": "shop"}]}]})), "spec.routes[0].timeoutPolicy.response", "breaks")
silent("HW417", "infinity", behind(thing("HTTPProxy", {"routes": [{"services": [{"name": "shop"}], "timeoutPolicy": {"response": "infinity"}}]})))
silent("HW417", "not the stream's", behind(thing("HTTPProxy", {"routes": [{"conditions": [{"prefix": "/api"}], "services": [{"name": "shop"}]}, {"conditions": [{"prefix": "/events"}], "services": [{"name": "shop"}], "timeoutPolicy": {"response": "infinity"}}]})), "/events")

# ── HW42x: load balancers
ALB = "['alb.ingress.kubernetes.io/load-balancer-attributes']"
finds("HW421", "the default", behind(ingress("alb")), ALB, "risks")
finds("HW421", "below the heartbeat", behind(ingress("alb", load_balancer_attributes="idle_timeout.timeout_seconds=10"), env=BEATS), ALB, "breaks")
silent("HW421", "five minutes", behind(ingress("alb", load_balancer_attributes="idle_timeout.timeout_seconds=300")))
silent("HW421", "a heartbeat", behind(ingress("alb"), env=BEATS))

BACKEND = {"cloud.google.com/backend-config": '{"default": "shop"}'}
finds("HW422", "not set", [web(), service(annotations=BACKEND), ingress("gce"), thing("BackendConfig", {})], "BackendConfig/shop spec.timeoutSec", "breaks")
finds("HW422", "no BackendConfig", behind(ingress("gce")), "Service/shop metadata.annotations['cloud.google.com/backend-config']", "breaks")
finds("HW422", "a policy of half a minute", [web(), service(), thing("GCPBackendPolicy", {"default": {"timeoutSec": 40}, "targetRef": {"name": "shop"}})], "default.timeoutSec", "breaks")
silent("HW422", "a day", [web(), service(annotations=BACKEND), ingress("gce"), thing("BackendConfig", {"timeoutSec": 86400})])
silent("HW422", "another controller", behind(ingress("nginx")))

finds("HW423", "an ALB", behind(ingress("alb", healthcheck_path="/events")), "healthcheck-path']", "risks")
silent("HW423", "a route that ends", behind(ingress("alb", healthcheck_path="/healthz")))
ELB = "service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout"
finds("HW424", "half a minute", [web(), service(annotations={ELB: "30"})], f"['{ELB}']", "risks")
silent("HW424", "ten minutes", [web(), service(annotations={ELB: "600"})])


# ── HW43x: gateways
def http_route(*rules: Any, kind: str = "HTTPRoute") -> Any:
    backends = {"backendRefs": [{"name": "shop", "port": 80}]}
    return thing(kind, {"parentRefs": [{"name": "edge"}], "rules": [{**backends, **rule} for rule in rules]}, group="gateway.networking.k8s.io/v1")


def at(path: str) -> dict[str, Any]:
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}}]}


finds("HW431", "request", behind(http_route({"timeouts": {"request": "30s"}})), "spec.rules[0].timeouts.request", "breaks")
finds("HW431", "backendRequest", behind(http_route({"timeouts": {"request": "0s", "backendRequest": "60s"}})), "timeouts.backendRequest", "breaks")
silent("HW431", "zero", behind(http_route({"timeouts": {"request": "0s"}})))
silent("HW431", "not the stream's", behind(http_route({**at("/events"), "timeouts": {"request": "0s"}}, {"timeouts": {"request": "20s"}})), "/events")
silent("HW431", "beside the streams'", behind(http_route({**at("/events"), "timeouts": {"request": "0s"}}, {"timeouts": {"request": "20s"}})))

ENVOY = "gateway.envoyproxy.io/v1alpha1"
TARGET = {"targetRefs": [{"kind": "HTTPRoute", "name": "shop"}]}
finds("HW432", "the default", behind(http_route({}), thing("ClientTrafficPolicy", {}, group=ENVOY)), "spec.rules[0].timeouts.request", "breaks")
silent("HW432", "zero", behind(http_route({"timeouts": {"request": "0s"}}), thing("ClientTrafficPolicy", {}, group=ENVOY)))
silent("HW432", "a policy", behind(http_route({}), thing("BackendTrafficPolicy", {**TARGET, "timeout": {"http": {"requestTimeout": "0s"}}}, group=ENVOY)))
silent("HW432", "another gateway", behind(http_route({})))

finds("HW433", "age", behind(thing("BackendTrafficPolicy", {**TARGET, "timeout": {"http": {"requestTimeout": "60s"}}}, group=ENVOY)), "timeout.http.requestTimeout", "breaks")
finds("HW433", "the client's connection", behind(thing("ClientTrafficPolicy", {"connection": {"maxConnectionDuration": "300s"}}, group=ENVOY)), "connection.maxConnectionDuration", "breaks")
finds("HW433", "silence", behind(thing("ClientTrafficPolicy", {"timeout": {"http": {"streamIdleTimeout": "30s"}}}, group=ENVOY)), "streamIdleTimeout", "risks")
finds("HW433", "number", behind(thing("ClientTrafficPolicy", {"connection": {"connectionLimit": {"value": 100}}}, group=ENVOY)), "connectionLimit.value", "risks")
silent("HW433", "receiving a request", behind(thing("ClientTrafficPolicy", {"timeout": {"http": {"requestReceivedTimeout": "10s", "idleTimeout": "60s"}}}, group=ENVOY)))
silent("HW433", "another route's", behind(http_route({}), {**http_route({**at("/api")}), "metadata": {"name": "api"}}, thing("BackendTrafficPolicy", {"targetRefs": [{"kind": "HTTPRoute", "name": "api"}], "timeout": {"http": {"requestTimeout": "60s"}}}, group=ENVOY)), "/events")

BUFFERS = thing("Middleware", {"buffering": {"maxRequestBodyBytes": 1000}}, group="traefik.io/v1alpha1", name="limit")


def traefik(match: str = "PathPrefix(`/`)", *middlewares: str) -> Any:
    return thing("IngressRoute", {"routes": [{"match": match, "services": [{"name": "shop"}], "middlewares": [{"name": name} for name in middlewares]}]}, group="traefik.io/v1alpha1")


finds("HW434", "on the streams' route", behind(BUFFERS, traefik("PathPrefix(`/events`)", "limit")), "spec.buffering", "breaks")
finds("HW434", "nobody is seen to use it", behind(BUFFERS), "spec.buffering", "risks")
silent("HW434", "on another route", behind(BUFFERS, traefik("PathPrefix(`/api`)", "limit"), {**traefik("PathPrefix(`/events`)"), "metadata": {"name": "events"}}))
silent("HW434", "another middleware", behind(thing("Middleware", {"headers": {}}, name="limit"), traefik("PathPrefix(`/events`)", "limit")))
finds("HW435", "in the chart's values", thing("HelmChartConfig", {"valuesContent": "ports:\n  web:\n    transport:\n      respondingTimeouts:\n        writeTimeout: 60s\n"}), "spec.valuesContent", "breaks")
silent("HW435", "readTimeout", thing("HelmChartConfig", {"valuesContent": "respondingTimeouts:\n  readTimeout: 60s\n  writeTimeout: 0s\n"}))


# ── HW44x: meshes
def istio(*routes: Any) -> Any:
    to = {"route": [{"destination": {"host": "shop"}}]}
    return thing("VirtualService", {"hosts": ["shop"], "http": [{**to, **route} for route in routes]}, group="networking.istio.io/v1")


finds("HW441", "Istio", behind(istio({"name": "all", "timeout": "30s"})), "spec.http[all].timeout", "breaks")
finds("HW441", "Linkerd", [web(), service(annotations={"timeout.linkerd.io/request": "10s"})], "['timeout.linkerd.io/request']", "breaks")
silent("HW441", "a try's", behind(istio({"retries": {"attempts": 3, "perTryTimeout": "10s"}})))
silent("HW441", "zero", behind(istio({"timeout": "0s"})))
silent("HW441", "not the stream's", behind(istio({"name": "events", "match": [{"uri": {"prefix": "/events"}}]}, {"name": "api", "match": [{"uri": {"prefix": "/api"}}], "timeout": "15s"})), "/events")

DRAINS = container(env=[{"name": "DRAIN_SECONDS", "value": "25"}])
MESH = {"labels": {"sidecar.istio.io/inject": "true"}}
finds("HW442", "five seconds", deployment(DRAINS, **MESH), "metadata.annotations['proxy.istio.io/config']", "risks")
silent("HW442", "as long", deployment(DRAINS, annotations={"proxy.istio.io/config": "terminationDrainDuration: 30s\n"}, **MESH))
silent("HW442", "no sidecar", deployment(DRAINS))
silent("HW442", "nothing is known of a drain", deployment(**MESH))

finds("HW443", "a hundred connections", behind(thing("DestinationRule", {"host": "shop", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 100}}}})), "tcp.maxConnections", "risks")
silent("HW443", "idle connections", behind(thing("DestinationRule", {"host": "shop", "trafficPolicy": {"connectionPool": {"http": {"idleTimeout": "60s"}}}})))
silent("HW443", "another host", behind(thing("DestinationRule", {"host": "db", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 100}}}})))

finds("HW444", "an EnvoyFilter", thing("EnvoyFilter", {"configPatches": [{"patch": {"value": {"typed_config": {"stream_idle_timeout": "30s"}}}}]}), "typed_config.stream_idle_timeout", "risks")
finds("HW444", "age", thing("EnvoyFilter", {"configPatches": [{"patch": {"value": {"common_http_protocol_options": {"max_stream_duration": "300s"}}}}]}), "max_stream_duration", "breaks")
ROUTE = "static_resources:\n  listeners:\n  - route_config:\n      virtual_hosts:\n      - routes:\n        - match: {prefix: /}\n          route: {cluster: shop%s}\n"
finds("HW444", "a file without a timeout", config(envoy__yaml=ROUTE % ""), "ConfigMap/shop data['envoy.yaml']", "breaks")
silent("HW444", "a file with none", config(envoy__yaml=ROUTE % ", timeout: 0s"))
silent("HW444", "connections without streams", thing("EnvoyFilter", {"configPatches": [{"patch": {"value": {"common_http_protocol_options": {"idle_timeout": "60s"}}}}]}))

KNATIVE = "serving.knative.dev/v1"
finds("HW445", "the default", thing("Service", {"template": {"spec": {"containers": []}}}, group=KNATIVE), "spec.template.spec.timeoutSeconds", "breaks")
finds("HW445", "one stream a pod", thing("Service", {"template": {"spec": {"timeoutSeconds": 3600, "containerConcurrency": 1}}}, group=KNATIVE), "containerConcurrency", "risks")
silent("HW445", "an hour", thing("Service", {"template": {"spec": {"timeoutSeconds": 3600}}}, group=KNATIVE))
silent("HW445", "a Service of Kubernetes", [web(), service()])


# ── HW45x: nginx and HAProxy of one's own
def nginx(*lines: str, location: str = "/events") -> Any:
    return config(default__conf=f"server {{\n  location {location} {{\n    proxy_pass http://shop;\n    {chr(10).join(lines)}\n  }}\n}}\n")


KEY = "ConfigMap/shop data['default.conf']"
finds("HW451", "the default", nginx(), KEY, "breaks")
finds("HW451", "compressed", nginx("proxy_buffering off;", "gzip on;", "gzip_types text/event-stream;"), KEY, "risks")
silent("HW451", "off", nginx("proxy_buffering off;"))
silent("HW451", "off around it", config(nginx__conf="http { proxy_buffering off; server { location /events { proxy_pass http://shop; } } }"))
silent("HW451", "not the stream's", config(default__conf="server { location /api { proxy_pass http://a; } location /events { proxy_pass http://b; proxy_buffering off; } }"))
silent("HW451", "no configuration of nginx", config(app__yaml="a: {b: 1}"))
finds("HW452", "the default", nginx("proxy_buffering off;"), KEY, "risks")
silent("HW452", "an hour", nginx("proxy_read_timeout 1h;"))
silent("HW452", "a heartbeat", [nginx(), web(env=BEATS)])
finds("HW453", "not set", nginx(), KEY, "note")
silent("HW453", "1.1", nginx("proxy_http_version 1.1;"))
FRONT = {"volumeMounts": [{"name": "config", "mountPath": "/etc/nginx/conf.d"}]}
silent("HW453", "a new nginx", [nginx(), deployment(container(image="nginx:1.31.0", **FRONT), pod=VOLUME)])

ANSWERS = config(default__conf="server { location /healthz { return 200; } location / { proxy_pass http://127.0.0.1:9000; } }")
BARE = {"livenessProbe": None, "startupProbe": None, "readinessProbe": None, "name": "app", "ports": None}
FRONTED = container(image="nginx:1.31", readinessProbe=probe("/healthz"), livenessProbe=None, startupProbe=None, **FRONT)
finds("HW454", "the app is asked nothing", [ANSWERS, deployment(FRONTED, container(**BARE), pod=VOLUME)], "readinessProbe.httpGet.path", "risks")
silent("HW454", "the app has probes", [ANSWERS, deployment(FRONTED, container(name="app"), pod=VOLUME)])
silent("HW454", "a proxy to others", [ANSWERS, deployment(FRONTED, pod=VOLUME)])

finds("HW455", "ten seconds", config(haproxy__cfg="defaults\n  timeout client 1m\n  timeout server 10s\n"), "ConfigMap/shop data['haproxy.cfg']", "risks")
finds("HW455", "below the heartbeat", [config(haproxy__cfg="defaults\n  timeout server 10s\n"), web(env=BEATS)], "data['haproxy.cfg']", "breaks")
silent("HW455", "two minutes", config(haproxy__cfg="defaults\n  timeout client 2m\n  timeout server 2m\n"))
silent("HW455", "a tunnel's", config(haproxy__cfg="defaults\n  timeout tunnel 10s\n"))

# ── HW50x, HW60x
finds("HW501", "a fifth of a core", web(resources={"limits": {"cpu": "200m"}}), "limits.cpu", "note")
silent("HW501", "none", web(resources={"requests": {"cpu": "200m"}}))
silent("HW501", "one process cannot use more", web(command=UVICORN, resources={"limits": {"cpu": "1"}}))
finds("HW601", "a name that is not there", [web(), service(port="web")], "spec.ports[http].targetPort", "breaks")
silent("HW601", "a sidecar's", [deployment(container(), pod={"initContainers": [{"name": "proxy", "image": "p:1", "restartPolicy": "Always", "ports": [{"name": "public", "containerPort": 8443}]}]}), service(port="public")])
silent("HW601", "a number", [web(), service(port=9999)])
finds("HW602", "ClientIP", [web(), service(sessionAffinity="ClientIP")], "sessionAffinity", "risks")
silent("HW602", "none", [web(), service(sessionAffinity="None")])
silent("HW602", "one pod", [deployment(spec={"replicas": 1}), service(sessionAffinity="ClientIP")])


def policy(*rules: Any, name: str = "shop") -> Any:
    return thing("NetworkPolicy", {"podSelector": {"matchLabels": {"app": "shop"}}, "policyTypes": ["Ingress"], "ingress": list(rules)}, name=name)


finds("HW603", "nobody", [web(), service(), policy()], "spec.ingress", "breaks")
finds("HW603", "another port", [web(), service(), policy({"ports": [{"port": 9999}]})], "spec.ingress", "breaks")
silent("HW603", "another policy lets them in", [web(), service(), policy(), policy({"ports": [{"port": "http"}]}, name="open")])
silent("HW603", "by number", [web(), service(), policy({"ports": [{"port": 8080}]})])
silent("HW603", "no policy", [web(), service()])

finds("HW436", "three seconds", behind(thing("Mapping", {"prefix": "/events/", "service": "shop:80"})), "spec.timeout_ms", "breaks")
silent("HW436", "zero", behind(thing("Mapping", {"prefix": "/events/", "service": "shop:80", "timeout_ms": 0})))
finds("HW441", "a ServiceProfile", thing("ServiceProfile", {"routes": [{"condition": {"pathRegex": "/events"}, "timeout": "10s"}]}), "spec.routes[0].timeout", "breaks")
silent("HW441", "another route of a ServiceProfile", thing("ServiceProfile", {"routes": [{"condition": {"pathRegex": "/api"}, "timeout": "10s"}]}))
finds("HW444", "a CiliumEnvoyConfig", thing("CiliumEnvoyConfig", {"resources": [{"common_http_protocol_options": {"max_stream_duration": "60s"}}]}), "max_stream_duration", "breaks")
finds("HW414", "OpenShift", behind(thing("Route", {"to": {"name": "shop"}}, metadata={"name": "shop", "annotations": {"haproxy.router.openshift.io/rate-limit-connections.concurrent-tcp": "10"}})), "concurrent-tcp']", "risks")
NGINX_CONF = "events { %s }\nhttp { server { location / { proxy_pass http://shop; } } }\n"
finds("HW456", "the default", config(nginx__conf=NGINX_CONF % ""), "data['nginx.conf']", "note")
silent("HW456", "ten thousand", config(nginx__conf=NGINX_CONF % "worker_connections 10000;"))
finds("HW418", "HAProxy", behind(ingress("haproxy", timeout_tunnel="1h")), "['haproxy.org/timeout-tunnel']", "risks")
silent("HW418", "both are set", behind(ingress("haproxy", timeout_tunnel="1h", timeout_server="1h")))
finds("HW421", "beside a setting without effect", behind(ingress("alb", connection_idle_timeout="300")), ALB, "risks")
finds("HW406", "idle", [deployment(), thing("ScaledObject", {**KEDA, "minReplicaCount": 2, "idleReplicaCount": 0})], "idleReplicaCount", "risks")
QUICK = {"scaleDown": {"stabilizationWindowSeconds": 600, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}
finds("HW404", "all of them, a little later", [deployment(), thing("HorizontalPodAutoscaler", {**SCALED, "behavior": QUICK})], "behavior.scaleDown", "risks")
finds("HW444", "a route's silence", thing("EnvoyFilter", {"configPatches": [{"patch": {"value": {"route": {"idle_timeout": "30s"}}}}]}), "route.idle_timeout", "risks")
finds("HW454", "the app has another probe only", [ANSWERS, deployment(FRONTED, container(name="app", readinessProbe=None), pod=VOLUME)], "readinessProbe.httpGet.path", "risks")
finds("HW411", "Kong takes it from the Service", behind(ingress("kong")), "Service/shop metadata.annotations['konghq.com/read-timeout']", "risks")
silent("HW411", "Kong, in milliseconds", [web(), service(annotations={"konghq.com/read-timeout": "3600000"}), ingress("kong")])
finds("HW411", "a broker's heartbeat is not the streams'", behind(ingress("nginx"), env=[{"name": "AMQP_HEARTBEAT", "value": "10"}]), READ, "risks")
finds("HW445", "ten minutes", thing("Service", {"template": {"spec": {"timeoutSeconds": 600}}}, group=KNATIVE), "spec.template.spec.timeoutSeconds", "risks")
finds("HW442", "in JSON", deployment(DRAINS, annotations={"proxy.istio.io/config": '{"terminationDrainDuration": "6s"}'}, **MESH), "metadata.annotations['proxy.istio.io/config']", "risks")
finds("HW442", "in JSON without it", deployment(DRAINS, annotations={"proxy.istio.io/config": '{"concurrency": 2}'}, **MESH), "metadata.annotations['proxy.istio.io/config']", "risks")
finds("HW411", "HAProxy's numbers are milliseconds", behind(ingress("haproxy", timeout_server="3600")), "['haproxy.org/timeout-server']", "risks")
