// Command peer is an SSE server as a Go engineer would usually write it, with the standard library only. It is the
// reference of tests/live/test_raw_sockets.py (time-outs, limits, what closes when) and a peer of the benchmark.
//
// For Go 1.19, which has no http.ResponseController: a handler that must move its connection's deadlines gets
// the net.Conn through ConnContext. Settings have Headwater's names in the environment, and flags beside them.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// net/http reads this much more than MaxHeaderBytes before it answers 431 ("slop" in its source).
const headerSlop = 4096

type connKey struct{}

type server struct {
	settings settings
	broker   *broker
	draining chan struct{} // closed when the shutdown begins: streams end cleanly
	ready    atomic.Bool
}

func main() {
	s := &server{settings: parseSettings(), broker: newBroker(), draining: make(chan struct{})}
	web := s.httpServer()
	web.RegisterOnShutdown(func() { close(s.draining) })

	failed := make(chan error, 2)
	for _, port := range []int{s.settings.healthPort, s.settings.port} {
		if port == 0 {
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort(s.settings.host, strconv.Itoa(port)))
		if err != nil {
			log.Fatal(err)
		}
		log.Printf("listening at %s", listener.Addr())
		go func() { failed <- web.Serve(listener) }()
	}
	s.ready.Store(true)

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	select {
	case err := <-failed:
		log.Fatal(err)
	case <-stop.Done():
	}
	s.ready.Store(false)
	bounded, cancel := context.WithTimeout(context.Background(), s.settings.shutdownTimeout)
	defer cancel()
	if err := web.Shutdown(bounded); err != nil {
		log.Fatal(err)
	}
}

func (s *server) httpServer() *http.Server {
	maxHeaderBytes := s.settings.maxHeaderBytes - headerSlop
	if maxHeaderBytes < 1 {
		maxHeaderBytes = 1 // 0 would mean net/http's default of 1 MB
	}
	return &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: s.settings.readHeaderTimeout,
		ReadTimeout:       s.settings.readTimeout,
		WriteTimeout:      s.settings.writeTimeout,
		IdleTimeout:       s.settings.idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
	}
}

// --- routes --------------------------------------------------------------------------------------------------------

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	// As long as a usual page, so that a stopped reader leaves something unread.
	console := page("text/html; charset=utf-8", "<!doctype html><title>peer</title>\n"+strings.Repeat(" ", 16384))
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/startupz"} {
		mux.Handle(path, methods{"GET": s.probe})
	}
	mux.Handle("/events", methods{"GET": s.stream})
	mux.Handle("/events/", methods{"GET": s.stream, "POST": s.publish})
	mux.Handle("/openapi.json", methods{"GET": page("application/json", `{"openapi":"3.1.0"}`)})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			problem(w, http.StatusNotFound, "no such page")
			return
		}
		methods{"GET": console}.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.settings.serverHeader != "" {
			w.Header().Set("Server", s.settings.serverHeader)
		}
		mux.ServeHTTP(w, r)
	})
}

// methods answers HEAD with GET's handler (net/http drops the body), OPTIONS itself, and anything else with 405.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Method
	if name == http.MethodHead {
		name = http.MethodGet
	}
	if handler, ok := m[name]; ok {
		handler(w, r)
		return
	}
	allow := "GET, HEAD, OPTIONS"
	if _, ok := m[http.MethodPost]; ok {
		allow += ", POST"
	}
	w.Header().Set("Allow", allow)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	problem(w, http.StatusMethodNotAllowed, "this method is not allowed here")
}

func page(kind, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = w.Write([]byte(text))
	}
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"status":` + strconv.Itoa(status) + `,"detail":` + strconv.Quote(detail) + "}\n"))
}

func (s *server) probe(w http.ResponseWriter, _ *http.Request) {
	// A prober with a kept connection would go on asking a pod that has left the endpoints.
	w.Header().Set("Connection", "close")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	status, text := http.StatusOK, "ok\n"
	if !s.ready.Load() {
		status, text = http.StatusServiceUnavailable, "not ready\n"
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// --- events --------------------------------------------------------------------------------------------------------

func channelOf(r *http.Request) string {
	if name := strings.TrimPrefix(r.URL.Path, "/events/"); name != r.URL.Path {
		return name
	}
	return r.URL.Query().Get("channel") // one is enough for a peer
}

func (s *server) publish(w http.ResponseWriter, r *http.Request) {
	limit := s.settings.maxEventBytes
	if r.ContentLength > limit { // before the first read: a client that waits for 100-continue sends nothing then
		problem(w, http.StatusRequestEntityTooLarge, "the event is too large")
		return
	}
	data, err := readAll(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	if err != nil {
		var tooLarge *http.MaxBytesError
		var network net.Error
		w.Header().Set("Connection", "close") // the start of the next request is unknown
		switch {
		case errors.As(err, &tooLarge):
			problem(w, http.StatusRequestEntityTooLarge, "the event is too large")
		case errors.As(err, &network) && network.Timeout():
			problem(w, http.StatusRequestTimeout, "the body did not arrive in time")
		default:
			problem(w, http.StatusBadRequest, "the body is broken")
		}
		return
	}
	channel := channelOf(r)
	id := s.broker.publish(channel, r.URL.Query().Get("event"), data)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(`{"id":"` + id + `","channel":` + strconv.Quote(channel) + "}\n"))
}

func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Connection", "close") // keeping it gains nothing after an hour's stream
	if r.Method == http.MethodHead {
		return
	}
	flusher := w.(http.Flusher)
	conn := r.Context().Value(connKey{}).(net.Conn)
	// WriteTimeout's deadline would end every stream that long after its request. (ReadTimeout needs nothing: net/http
	// clears it when it begins to read in the background, to notice that the client went away.)
	_ = conn.SetWriteDeadline(time.Time{})
	write := func(block []byte) bool {
		if s.settings.writeTimeout > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(s.settings.writeTimeout))
		}
		if _, err := w.Write(block); err != nil {
			return false
		}
		flusher.Flush() // the next Write meets its error, which cancels the context
		return true
	}

	channel := channelOf(r)
	events := s.broker.subscribe(channel, s.settings.buffer)
	defer s.broker.unsubscribe(channel, events)
	heartbeat := func(fields string, at time.Time) []byte {
		return []byte(fields + "event: heartbeat\ndata: " + strconv.FormatInt(at.UnixMilli(), 10) + "\n\n")
	}
	if !write(heartbeat("id: "+s.broker.lastID()+"\nretry: 2000\n", time.Now())) {
		return
	}
	var beats <-chan time.Time // nil, which never fires, if heartbeats are off
	if s.settings.heartbeat > 0 {
		ticker := time.NewTicker(s.settings.heartbeat)
		defer ticker.Stop()
		beats = ticker.C
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.draining:
			return
		case frame := <-events:
			if !write(frame) {
				return
			}
		case now := <-beats:
			if !write(heartbeat("", now)) {
				return
			}
		}
	}
}
