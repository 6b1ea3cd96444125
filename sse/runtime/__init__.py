"""What differs between threads and gevent: locks, spawning, sleeping, waking. Imports no other room."""
