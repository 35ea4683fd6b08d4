// One session of a console: a websocket at the page's own address, opened with the token that stood there, once.

const state = document.getElementById("state");
const address = new URL(window.location.href);
const token = address.searchParams.get("token");
const server = address.pathname.split("/").pop();

// Neither history nor bookmarks keep it.
address.searchParams.delete("token");
window.history.replaceState(null, "", address);

document.getElementById("what").textContent += " of " + server;
document.title += " · " + server;
document.getElementById("whole").addEventListener("click", () => document.documentElement.requestFullscreen());

export function say(text, isOver = false) {
    state.textContent = text;
    state.classList.toggle("over", isOver);
}

// The open websocket, or null where the page has no token any more. `ended` is called once, when all is over.
export function open(ended) {
    if (!token) {
        say("The URL of a console is good once: ask for another one.", true);
        return null;
    }
    const there = new URL(address);
    there.protocol = there.protocol === "https:" ? "wss:" : "ws:";
    there.searchParams.set("token", token);
    const socket = new WebSocket(there, ["binary"]);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("close", (event) => {
        say(event.reason || (event.wasClean ? "The session is over." : "The connection was lost: ask for another URL."), true);
        ended();
    });
    return socket;
}
