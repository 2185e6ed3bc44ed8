/** The login, over the page: what was there stays, forms included. */
import { html, useEffect, useRef, useState } from "../lib.js";
import { useObservable } from "../state/observable.js";
import { login, loginWanted } from "../state/session.js";
import { base, usePlace } from "../state/url.js";
import { intoFocus } from "./dialog.js";
import { useSending } from "./form.js";
import { Details } from "./states.js";

/** @type {Record<string, string>} */
const WHY = {
  refused: "The login was refused.",
  expired: "The login took too long, or was begun in another window. Try again.",
  issuer: "The issuer's answer could not be trusted.",
  unavailable: "The issuer does not answer now.",
  "too-large": "Your token has more claims than a session can hold.",
  "no-rights": "You are known, but have no rights here.",
};

export function Login() {
  const wanted = useObservable(loginWanted);
  const { params } = usePlace();
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [key, setKey] = useState("");
  const sending = useSending();
  const { busy, error } = sending;
  useEffect(() => {
    if (wanted && dialog.current && !dialog.current.open) {
      dialog.current.showModal();
      intoFocus(dialog.current);
    }
  }, [wanted]);
  if (!wanted) return null;
  const oidc = document.documentElement.dataset.auth === "oidc";
  const why = WHY[params.get("login") ?? ""];
  const send = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    return sending.send(async () => {
      await login(key.trim());
      setKey("");
    });
  };
  const next = `${window.location.pathname}${window.location.search}`;
  return html`<dialog ref=${dialog} class="narrow" aria-labelledby="login-title" onCancel=${(event) => event.preventDefault()}
      onClose=${(event) => event.currentTarget.isConnected && event.currentTarget.showModal()}>
    <h2 id="login-title">Log in</h2>
    ${why && html`<p class="field-error" role="alert">${why}</p>`}
    ${oidc
      ? html`<p>What you were at stays as it is.</p><div class="buttons"><a class="button primary" href=${`${base}/session/login?${new URLSearchParams({ next })}`}>Log in with your organisation</a></div>`
      : html`<form onSubmit=${send}>
        <p>Paste your API key once; it is exchanged for a session and not kept by the page.</p>
        <input type="text" name="username" autocomplete="username" value=${document.documentElement.dataset.cluster} hidden readonly />
        <label>API key
          <input type="password" name="key" autocomplete="current-password" required data-focus value=${key} aria-invalid=${error ? "true" : undefined} aria-describedby="login-error"
            onInput=${(event) => setKey(event.currentTarget.value)} /></label>
        <div id="login-error" role="alert">${error && html`<div class="field-error"><strong>${error.problem.title}</strong><${Details} error=${error} /></div>`}</div>
        <div class="buttons"><button type="submit" class="primary" disabled=${busy}>Log in</button></div>
      </form>`}
  </dialog>`;
}
