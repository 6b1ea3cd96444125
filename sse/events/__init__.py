"""What an event is: its limits, its id, its bytes on the wire. Pure; imports no other room."""
