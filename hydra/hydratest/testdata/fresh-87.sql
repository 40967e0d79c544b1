-- What a database that was made with schema version 87 lacks beside an upgraded one. Names are facts about Hydra.
drop table releasemembers;
drop table releases;
alter table buildproducts drop column sha1hash;
