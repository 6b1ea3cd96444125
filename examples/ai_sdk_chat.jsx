// The page's side of ai_sdk.py: a chat whose answers survive a reload, a second tab, a dropped connection, a rollout.
//
//     <Chat id="42" messages={await (await fetch("/api/chat/42")).json().then((chat) => chat.messages)} />

import { useChat } from "@ai-sdk/react";
import { useState } from "react";

export function Chat({ id, messages: said }) {
    const { messages, sendMessage, resumeStream, status, error } = useChat({
        id,
        messages: said,
        resume: true,       // a page that opens asks for the answer that is being given now
        onFinish: ({ finishReason, isAbort, isError, isDisconnect }) => {
            // The stream has ended, and the answer has not: the connection was lost, or its pod leaves. Ask again, as an
            // EventSource would. The answer to that is 204 if the run has ended, too (stopped, or lost with its pod).
            if (!finishReason && !isAbort && (isDisconnect || !isError)) setTimeout(resumeStream, 500 + 1000 * Math.random());
        },
    });
    const [input, setInput] = useState("");
    const answering = status === "submitted" || status === "streaming";

    return (
        <form
            onSubmit={(event) => {
                event.preventDefault();
                sendMessage({ text: input });
                setInput("");
            }}
        >
            {messages.map(({ id, role, parts }) => (
                <p key={id} className={role}>
                    {parts.map((part) => (part.type === "text" ? part.text : "")).join("")}
                </p>
            ))}
            <output>{error ? error.message : status}</output>
            <input value={input} onChange={(event) => setInput(event.target.value)} />
            <button disabled={answering}>Send</button>
            <button type="button" disabled={!answering} onClick={() => fetch(`/api/chat/${id}/stop`, { method: "POST" })}>
                Stop
            </button>
        </form>
    );
}
