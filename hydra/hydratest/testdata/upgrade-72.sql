-- From schema version 65 to 72 (February 2021): evaluations belong to a jobset by its id, builds by name and id. Names
-- are facts about Hydra.
update schemaversion set version = 72;

alter table builds drop constraint builds_job, drop column nixexprinput, drop column nixexprpath;
alter table buildmetrics drop constraint buildmetrics_job;
drop table jobs;
alter table jobsetevals
    add column jobset_id integer not null references jobsets(id) on delete cascade,
    add column errormsg text, add column errortime integer, add column nixexprinput text, add column nixexprpath text,
    drop column project, drop column jobset;
