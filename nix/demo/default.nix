# A small collection of private packages outside Nixpkgs: each package is a function that names its dependencies
# (pkgs/NAME/default.nix), and this file, the composition, fills them in.
#
#   nix-build nix/demo -A welcome                               build one of them
#   nix-build nix/demo -A welcome --argstr system i686-linux    for another system (on a machine that can)
#   nix-build nix/demo -A welcome --arg overrides \
#     '(self: super: { hello = super.hello_1_0; })'             with another hello, for every package that uses one
#
# Nothing is downloaded: the packages are built by /bin/sh with the tools in /usr/bin. That is not how to build software
# that must be reproducible, and it needs `--option sandbox false`; composing works the same with Nixpkgs underneath:
# callPackageWith ((import <nixpkgs> { inherit system; }) // self).
{ system ? builtins.currentSystem
, overrides ? (self: super: { })
}:

let
  inherit (import ./lib.nix) callPackageWith;

  # `self` is the finished collection, overrides included. Dependencies come from there, and so an override reaches
  # whatever depends on the package.
  callPackage = callPackageWith self;

  packages = {
    inherit system callPackage;

    mkDerivation = callPackage ./mk-derivation.nix { };

    phrasebook = callPackage ./pkgs/phrasebook { };

    hello_1_0 = callPackage ./pkgs/hello { version = "1.0"; };
    hello_1_1 = callPackage ./pkgs/hello { version = "1.1"; };
    hello = self.hello_1_1;

    welcome = callPackage ./pkgs/welcome { };
    welcome_1_0 = self.welcome.override { hello = self.hello_1_0; };
  };

  self = packages // overrides self packages;
in
self
