// Command mercure serves Mercure's hub with net/http, as its documentation says for programs in Go. The hub has its
// defaults but for the log, which is off like every peer's, and the heartbeat, which is every peer's 15 s.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/dunglas/mercure"
	"go.uber.org/zap"
)

const heartbeat = 15 * time.Second

func main() {
	address := flag.String("address", "127.0.0.1:3000", "where to listen")
	key := flag.String("key", "", "the secret of publishers' tokens (HS256)")
	path := flag.String("bolt", "", "the Bolt database's file; without it nothing is stored")
	flag.Parse()

	transport, err := newTransport(*path)
	if err != nil {
		log.Fatal(err)
	}
	hub, err := mercure.NewHub(
		mercure.WithTransport(transport),
		mercure.WithAnonymous(),
		mercure.WithPublisherJWT([]byte(*key), "HS256"),
		mercure.WithSubscriberJWT([]byte(*key), "HS256"),
		mercure.WithHeartbeat(heartbeat),
		mercure.WithLogger(zap.NewNop()),
	)
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/.well-known/mercure", hub)
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	log.Fatal(http.ListenAndServe(*address, nil))
}

func newTransport(path string) (mercure.Transport, error) {
	if path == "" {
		return mercure.NewLocalTransport(), nil
	}
	// 0 events: keep all. The frequency of cleaning up, Mercure's default, then has no effect.
	return mercure.NewBoltTransport(zap.NewNop(), path, "", 0, mercure.BoltDefaultCleanupFrequency)
}
