/** The page: its frame, and which part of it stands at which address. */
import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./lib.js";
import { Login } from "./parts/login.js";
import { Shortcuts } from "./parts/shortcuts.js";
import { TimeForms, ZoneList } from "./parts/time.js";
import { TopBar } from "./parts/top.js";
import { ActivityPage } from "./pages/activity.js";
import { ClusterPage } from "./pages/cluster.js";
import { DeadLettersPage } from "./pages/dead_letters.js";
import { DestinationsPage } from "./pages/destinations.js";
import { ForecastPage } from "./pages/forecast.js";
import { JobPage } from "./pages/job.js";
import { JobsPage } from "./pages/jobs.js";
import { NewJobPage } from "./pages/new_job.js";
import { NewSchedulePage } from "./pages/new_schedule.js";
import { OverviewPage } from "./pages/overview.js";
import { SchedulePage } from "./pages/schedule.js";
import { SchedulesPage } from "./pages/schedules.js";
import { SearchPage } from "./pages/search.js";
import { UpcomingPage } from "./pages/upcoming.js";
import { useObservable } from "./state/observable.js";
import { loadMe, loginWanted, me, meError } from "./state/session.js";
import { arrivals, href, usePlace } from "./state/url.js";

/** @import { Hole } from "./lib.js" */
/** @import { VNode } from "./vendor/preact.js" */

/** Pages of the navigation, in its order; the shortcut goes after `g`. */
export const PAGES = [
  { path: "/", title: "Overview", shortcut: "o", page: OverviewPage },
  { path: "/schedules", title: "Schedules", shortcut: "s", page: SchedulesPage },
  { path: "/upcoming", title: "Upcoming", shortcut: "u", page: UpcomingPage },
  { path: "/jobs", title: "Jobs", shortcut: "j", page: JobsPage },
  { path: "/activity", title: "Activity", shortcut: "a", page: ActivityPage },
  { path: "/dead-letters", title: "Dead letters", shortcut: "d", page: DeadLettersPage },
  { path: "/forecast", title: "Forecast", shortcut: "f", page: ForecastPage },
  { path: "/destinations", title: "Destinations", shortcut: "t", page: DestinationsPage },
  { path: "/cluster", title: "Cluster", shortcut: "c", page: ClusterPage },
];
/**
 * @typedef {object} Route
 * @property {string} path
 * @property {string} title
 * @property {(props: {params: URLSearchParams}) => VNode} page
 * @property {string} [shortcut]
 * @property {string} [below] the page of the navigation that it belongs to
 */

const OTHERS = [
  { path: "/schedule", title: "Schedule", page: SchedulePage, below: "/schedules" },
  { path: "/new", title: "New schedule", page: NewSchedulePage, below: "/schedules" },
  { path: "/job", title: "Job", page: JobPage, below: "/jobs" },
  { path: "/new-job", title: "New job", page: NewJobPage, below: "/jobs" },
  { path: "/search", title: "Search", page: SearchPage, below: "" },
];

function App() {
  const { path, params } = usePlace();
  const route = /** @type {Route[]} */ ([...PAGES, ...OTHERS]).find((each) => each.path === path) ?? null;
  const [menu, setMenu] = useState(false);
  const arrival = useObservable(arrivals);
  const first = useRef(true);
  useEffect(() => setMenu(false), [path]);
  useEffect(() => {
    const named = params.get("key") ?? params.get("job") ?? params.get("client");
    document.title = `${route?.title ?? "Not found"}${named ? ` · ${named}` : ""} · Clockwork`;
  });
  useEffect(() => {
    // Not at the first load: a reader's own focus, and the browser's place for it, come first then.
    if (first.current) first.current = false;
    else document.querySelector("h1")?.focus({ preventScroll: true });
  }, [arrival]);
  const cluster = document.documentElement.dataset.cluster;
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.querySelector("h1")?.focus();
    }}>Skip to the content</a>
    <${Banner} />
    <header class="top"><${TopBar} menu=${menu} onMenu=${() => setMenu(!menu)} cluster=${cluster} /></header>
    <div class="frame">
      <nav id="nav" class=${menu ? "open" : ""} aria-label="Pages">
        <ul>${PAGES.map((each) => html`<li><a href=${href(each.path)} aria-current=${(route?.below ?? route?.path) === each.path ? "page" : undefined}>${each.title}</a></li>`)}</ul>
      </nav>
      <main id="main">
        <${Guard} key=${path}>
          ${route ? html`<${route.page} params=${params} />` : html`<h1 tabindex="-1">Not found</h1><p>There is no page at this address. <a href=${href("/")}>Overview</a></p>`}
        <//>
      </main>
    </div>
    <${TimeForms} />
    <${ZoneList} />
    <${Shortcuts} pages=${PAGES} />
    <${Login} />
    <div id="announcement" class="sr-only" role="status" aria-live="polite"></div>
  `;
}

/** What is true of the whole page and cannot be closed. */
function Banner() {
  const { auth, banner, version } = document.documentElement.dataset;
  const failed = useObservable(meError);
  const who = useObservable(me);
  const newer = who !== null && who.version !== version;
  if (!banner && !newer && auth !== "none" && !failed) return null;
  return html`<section aria-label="Notices">
    ${banner && html`<div class="banner named"><strong>${banner}</strong></div>`}
    ${auth === "none" && html`<div class="banner open-door"><span aria-hidden="true">▲ </span>No login is set up: anyone who reaches this node may do anything here.</div>`}
    ${newer && html`<div class="banner open-door" role="status">The service is of version ${who.version} now, this page of ${version}. <button type="button" class="small" onClick=${() => window.location.reload()}>Load the page anew</button></div>`}
    ${failed && html`<div class="banner open-door" role="alert">The node could not be asked who you are: ${failed.message}${" "}
      <button type="button" class="small" onClick=${loadMe}>Try again</button></div>`}
  </section>`;
}

/** An error of ours in one page leaves the others as they are. */
/** @param {{children?: Hole}} props */
function Guard({ children }) {
  const [error, reset] = useErrorBoundary();
  if (!error) return children;
  console.error(error);
  return html`<h1 tabindex="-1">This page has a defect</h1>
    <div class="notice bad" role="alert"><p>The page could not be shown; the service is not concerned. Please report this text:</p>
      <pre>${String(error?.stack ?? error)}</pre>
      <button type="button" onClick=${reset}>Show it again</button></div>`;
}

/** Rights change, releases are rolled out, and a session ends without use: an open page that is looked at asks again. */
const ME_AGAIN_MS = 300_000;
setInterval(() => !document.hidden && !loginWanted.get() && loadMe(), ME_AGAIN_MS);
loadMe();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
