package main

import (
	"bytes"
	"io"
	"strconv"
	"sync"
	"time"
)

// broker hands each event to the subscribers of its channel. A frame is encoded once and shared; a subscriber whose
// buffer is full misses it, so that a slow client delays nobody.
type broker struct {
	mu       sync.RWMutex
	channels map[string]map[chan []byte]struct{}

	ids      sync.Mutex
	millis   int64
	sequence int64
}

func newBroker() *broker {
	return &broker{channels: make(map[string]map[chan []byte]struct{}), millis: time.Now().UnixMilli()}
}

func (b *broker) subscribe(channel string, buffer int) chan []byte {
	events := make(chan []byte, buffer)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.channels[channel] == nil {
		b.channels[channel] = make(map[chan []byte]struct{})
	}
	b.channels[channel][events] = struct{}{}
	return events
}

func (b *broker) unsubscribe(channel string, events chan []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.channels[channel], events)
	if len(b.channels[channel]) == 0 {
		delete(b.channels, channel)
	}
}

func (b *broker) publish(channel, event string, data []byte) string {
	id := b.nextID()
	frame := encode(id, event, data)
	b.mu.RLock()
	defer b.mu.RUnlock()
	for events := range b.channels[channel] {
		select {
		case events <- frame:
		default:
		}
	}
	return id
}

func (b *broker) nextID() string {
	b.ids.Lock()
	defer b.ids.Unlock()
	if now := time.Now().UnixMilli(); now > b.millis {
		b.millis, b.sequence = now, 0
	} else {
		b.sequence++
	}
	return strconv.FormatInt(b.millis, 10) + "-" + strconv.FormatInt(b.sequence, 10)
}

func (b *broker) lastID() string {
	b.ids.Lock()
	defer b.ids.Unlock()
	return strconv.FormatInt(b.millis, 10) + "-" + strconv.FormatInt(b.sequence, 10)
}

// encode writes the block of WHATWG HTML section 9.2.6; each line of the data gets a field of its own.
func encode(id, event string, data []byte) []byte {
	block := make([]byte, 0, len(data)+len(id)+len(event)+32)
	block = append(append(block, "id: "...), id...)
	if event != "" {
		block = append(append(block, "\nevent: "...), event...)
	}
	if bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	}
	for more := true; more; {
		var line []byte
		line, data, more = bytes.Cut(data, []byte("\n"))
		block = append(append(block, "\ndata: "...), line...)
	}
	return append(block, "\n\n"...)
}

// readAll is io.ReadAll with a buffer of the right size from the start, when the size is known.
func readAll(body io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(body)
	}
	data := make([]byte, length)
	_, err := io.ReadFull(body, data)
	return data, err
}
