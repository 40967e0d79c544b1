-- The tables of Hydra's database that narvault reads, as schema version 28 (2014) has them. Names of tables and columns,
-- their types and constraints are facts about Hydra; upgrade-*.sql bring them to later versions.
create table schemaversion (version integer not null);
insert into schemaversion values (28);

create table users (
    username text primary key, fullname text, emailaddress text not null, password text not null,
    emailonerror integer not null default 0, type text not null default 'hydra');

create table projects (
    name text primary key, displayname text not null, description text,
    enabled integer not null default 1, hidden integer not null default 0,
    owner text not null references users(username) on update cascade, homepage text);

create table jobsets (
    name text not null, project text not null references projects(name) on delete cascade on update cascade,
    description text, nixexprinput text not null, nixexprpath text not null,
    errormsg text, errortime integer, lastcheckedtime integer, triggertime integer,
    enabled integer not null default 1, enableemail integer not null default 1, hidden integer not null default 0,
    emailoverride text not null, keepnr integer not null default 3, checkinterval integer not null default 300,
    schedulingshares integer not null default 100, fetcherrormsg text,
    primary key (project, name));

create table jobsetinputs (
    project text not null, jobset text not null, name text not null, type text not null,
    emailresponsible integer not null default 0,
    primary key (project, jobset, name),
    foreign key (project, jobset) references jobsets(project, name) on delete cascade on update cascade);

create table jobsetinputalts (
    project text not null, jobset text not null, input text not null, altnr integer not null,
    value text, revision text,
    primary key (project, jobset, input, altnr),
    foreign key (project, jobset, input) references jobsetinputs(project, jobset, name) on delete cascade on update cascade);

create table jobs (
    project text not null references projects(name) on delete cascade on update cascade,
    jobset text not null, name text not null,
    primary key (project, jobset, name),
    foreign key (project, jobset) references jobsets(project, name) on delete cascade on update cascade);

create table builds (
    id serial primary key, finished integer not null, "timestamp" integer not null,
    project text not null references projects(name) on update cascade, jobset text not null, job text not null,
    nixname text, description text, longdescription text, drvpath text not null, system text not null,
    license text, homepage text, maintainers text, maxsilent integer default 3600, timeout integer default 36000,
    iscurrent integer default 0, nixexprinput text, nixexprpath text, priority integer not null default 0,
    busy integer not null default 0, locker text, logfile text,
    starttime integer, stoptime integer, iscachedbuild integer, buildstatus integer, errormsg text,
    size bigint, closuresize bigint, releasename text, keep integer not null default 0,
    check (finished = 0 or (stoptime is not null and stoptime != 0)),
    check (finished = 0 or (starttime is not null and starttime != 0)),
    foreign key (project, jobset) references jobsets(project, name) on update cascade,
    constraint builds_job foreign key (project, jobset, job) references jobs(project, jobset, name) on update cascade);

create table buildoutputs (
    build integer not null references builds(id) on delete cascade, name text not null, path text not null,
    primary key (build, name));

create table buildsteps (
    build integer not null references builds(id) on delete cascade, stepnr integer not null,
    type integer not null, drvpath text, busy integer not null, status integer, errormsg text,
    starttime integer, stoptime integer, machine text not null default '', system text,
    primary key (build, stepnr));

create table buildstepoutputs (
    build integer not null references builds(id) on delete cascade, stepnr integer not null,
    name text not null, path text not null,
    primary key (build, stepnr, name),
    foreign key (build, stepnr) references buildsteps(build, stepnr) on delete cascade);

create table buildinputs (
    id serial primary key, build integer references builds(id) on delete cascade,
    name text not null, type text not null, uri text, revision text, value text,
    emailresponsible integer not null default 0, dependency integer references builds(id), path text, sha256hash text);

create table buildproducts (
    build integer not null references builds(id) on delete cascade, productnr integer not null,
    type text not null, subtype text not null, filesize bigint, sha1hash text, sha256hash text,
    path text, name text not null, description text, defaultpath text,
    primary key (build, productnr));

create table releases (
    project text not null references projects(name) on delete cascade, name text not null,
    "timestamp" integer not null, description text,
    primary key (project, name));

create table releasemembers (
    project text not null references projects(name) on delete cascade on update cascade,
    release_ text not null, build integer not null references builds(id), description text,
    primary key (project, release_, build),
    foreign key (project, release_) references releases(project, name) on delete cascade on update cascade);

create table jobsetevals (
    id serial primary key, project text not null references projects(name) on delete cascade on update cascade,
    jobset text not null, "timestamp" integer not null, checkouttime integer not null, evaltime integer not null,
    hasnewbuilds integer not null, hash text not null, nrbuilds integer, nrsucceeded integer,
    foreign key (project, jobset) references jobsets(project, name) on delete cascade on update cascade);

create table jobsetevalinputs (
    eval integer not null references jobsetevals(id) on delete cascade, name text not null, altnr integer not null,
    type text not null, uri text, revision text, value text, dependency integer references builds(id),
    path text, sha256hash text,
    primary key (eval, name, altnr));

create table jobsetevalmembers (
    eval integer not null references jobsetevals(id) on delete cascade,
    build integer not null references builds(id) on delete cascade, isnew integer not null,
    primary key (eval, build));

create table aggregateconstituents (
    aggregate integer not null references builds(id) on delete cascade,
    constituent integer not null references builds(id) on delete cascade,
    primary key (aggregate, constituent));

create index on jobsetevalmembers(build);
create index on releasemembers(build);
