-- Named calendars of recurring jobs. The content is in the body (stores/job_forms.py); its digest is for conditions.

CREATE TABLE calendars (
    client_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    digest text NOT NULL,
    "by" text NOT NULL,
    body bytea NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, name)
);

-- The jobs that name a calendar, by their definitions of now.
CREATE TABLE calendar_jobs (
    client_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    PRIMARY KEY (client_id, name, job_id)
);
