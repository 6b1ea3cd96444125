package main

import (
	"flag"
	"log"
	"os"
	"strconv"
	"time"
)

type settings struct {
	host              string
	port, healthPort  int
	readHeaderTimeout time.Duration
	readTimeout       time.Duration
	writeTimeout      time.Duration
	idleTimeout       time.Duration
	shutdownTimeout   time.Duration
	heartbeat         time.Duration
	maxHeaderBytes    int
	maxEventBytes     int64
	buffer            int
	serverHeader      string
}

func parseSettings() settings {
	var s settings
	flag.StringVar(&s.host, "host", text("HOST", "127.0.0.1"), "address to listen at")
	flag.IntVar(&s.port, "port", integer("PORT", 8080), "port")
	flag.IntVar(&s.healthPort, "health-port", integer("HEALTH_PORT", 0), "a second port with the same routes; 0 = none")
	flag.DurationVar(&s.readHeaderTimeout, "read-header-timeout", seconds("SSE_READ_HEADER_TIMEOUT", 5), "0 = read-timeout")
	flag.DurationVar(&s.readTimeout, "read-timeout", seconds("SSE_READ_TIMEOUT", 15), "0 = off")
	flag.DurationVar(&s.writeTimeout, "write-timeout", seconds("SSE_WRITE_TIMEOUT", 10), "of a stream: for each write; 0 = off")
	flag.DurationVar(&s.idleTimeout, "idle-timeout", seconds("SSE_IDLE_TIMEOUT", 75), "0 = read-timeout")
	flag.DurationVar(&s.shutdownTimeout, "shutdown-timeout", 30*time.Second, "until what is in flight is cut")
	flag.DurationVar(&s.heartbeat, "heartbeat", seconds("SSE_HEARTBEAT", 15), "between two heartbeats; 0 = none")
	flag.IntVar(&s.maxHeaderBytes, "max-header-bytes", integer("SSE_MAX_HEADER_BYTES", 16384), "431 beyond it; more than 4096")
	flag.Int64Var(&s.maxEventBytes, "max-event-bytes", int64(integer("SSE_MAX_EVENT_BYTES", 65536)), "413 beyond it")
	flag.IntVar(&s.buffer, "buffer", 256, "events that wait for one subscriber; more are dropped")
	flag.StringVar(&s.serverHeader, "server-header", text("SSE_SERVER_HEADER", "headwater"), "empty = none")
	flag.Parse()
	return s
}

func text(name, fallback string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return fallback
}

func integer(name string, fallback int) int {
	value, err := strconv.Atoi(text(name, strconv.Itoa(fallback)))
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return value
}

func seconds(name string, fallback float64) time.Duration {
	value, err := strconv.ParseFloat(text(name, strconv.FormatFloat(fallback, 'f', -1, 64)), 64)
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return time.Duration(value * float64(time.Second))
}
