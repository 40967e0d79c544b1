-- From schema version 28 to 65 (May 2020), the last with releases: what changed in the tables that narvault reads. Names
-- are facts about Hydra.
update schemaversion set version = 65;

alter table users add column publicdashboard boolean not null default false;
alter table projects add column declfile text, add column decltype text, add column declvalue text;
alter table jobsets
    alter column nixexprinput drop not null, alter column nixexprpath drop not null,
    add column id serial not null unique, add column forceeval boolean, add column starttime integer,
    add column type integer not null default 0, add column flake text,
    add check (schedulingshares > 0),
    add check ((type = 0) = (nixexprinput is not null and nixexprpath is not null)),
    add check ((type = 1) = (flake is not null));
alter table jobs add column jobset_id integer not null references jobsets(id) on delete cascade;
alter table builds
    add column jobset_id integer not null references jobsets(id) on delete cascade,
    add column ischannel integer not null default 0, add column globalpriority integer not null default 0,
    add column notificationpendingsince integer,
    drop column busy, drop column locker, drop column logfile, drop column errormsg, drop column longdescription;
alter table buildsteps
    add column propagatedfrom integer references builds(id) on delete cascade, add column overhead integer,
    add column timesbuilt integer, add column isnondeterministic boolean;
alter table buildproducts drop column description;
alter table jobsetevals add column flake text;

create table buildmetrics (
    build integer not null references builds(id) on delete cascade, name text not null,
    unit text, value double precision not null,
    project text not null references projects(name) on update cascade, jobset text not null, job text not null,
    "timestamp" integer not null,
    primary key (build, name),
    foreign key (project, jobset) references jobsets(project, name) on update cascade,
    constraint buildmetrics_job foreign key (project, jobset, job) references jobs(project, jobset, name) on update cascade);
