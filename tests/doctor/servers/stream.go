// The same stream by net/http. WRITE_TIMEOUT: the server's own (a duration), none by default.
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

const beat = 500

func stream(writer http.ResponseWriter, request *http.Request) {
	writer.Header().Set("Content-Type", "text/event-stream")
	writer.Header().Set("Cache-Control", "no-cache")
	fmt.Fprint(writer, "retry: 2000\n\n")
	flusher := writer.(http.Flusher)
	flusher.Flush()
	next := time.Now().UnixMilli()/beat + 1
	if last, err := strconv.ParseInt(request.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		next = last + 1
	}
	for {
		for ; next <= time.Now().UnixMilli()/beat; next++ {
			if _, err := fmt.Fprintf(writer, "id: %d\ndata: %d\n\n", next, next*beat); err != nil {
				return
			}
		}
		flusher.Flush()
		select {
		case <-request.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func main() {
	limit, _ := time.ParseDuration(os.Getenv("WRITE_TIMEOUT"))
	http.HandleFunc("/events", stream)
	http.HandleFunc("/healthz", func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Connection", "close")
		fmt.Fprintln(writer, "ok")
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), WriteTimeout: limit}
	panic(server.ListenAndServe())
}
